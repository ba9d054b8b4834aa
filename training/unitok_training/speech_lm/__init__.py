"""What a language model of speech knows: words, sentences, how a story goes on, prosody, and how varied it speaks."""
