"""Measurements beside what people would use instead: `python -m benchmarks`.

Arms that are compared run in turn in one process (A B A B …) on the same data, order and initial weights; medians and
spreads are reported, whoever wins. One file per subject; `subjects.py` lists them.
"""
