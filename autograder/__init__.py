"""The course's machinery: expand chapters, release, judge, explain, report."""
