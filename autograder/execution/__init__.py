"""Run a student's code in a process apart, and talk to it.

Nothing in this folder is a secret: it is what the student's process holds.
It imports neither checks nor answers, and no other part of the machinery.
"""
