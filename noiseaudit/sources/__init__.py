"""The kinds of source that `noiseaudit.load` reads, one file each."""
