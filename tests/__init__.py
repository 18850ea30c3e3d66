"""The checks of the chapters, and the tests of the machinery."""
