"""The course's machinery: expand chapters, release, judge, explain, report."""

import sys

# jsonschema, which reads notebooks for us, would spend a second on a grammar
# of web addresses at every start. It does without what can't be imported.
sys.modules.setdefault("rfc3987_syntax", None)
