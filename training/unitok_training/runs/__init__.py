"""Graphs of stages, each in a process of its own: started, watched, continued; threads and memory of one."""
