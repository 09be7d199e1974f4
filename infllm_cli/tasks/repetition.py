"""An answer that goes round in a circle, told while it is generated."""

LONGEST = 64  # tokens of the longest circle
TIMES = 4  # that it was gone round, at least
TOKENS = 32  # of all rounds, at least: a short one is gone round more often
DOUBT = 4  # tokens that come again as they were, before they are held back


class Repetition:
    """Watches token ids, one by one, for the same 1 to 64 of them again and again.

    Only what is the same token for token counts: a list, a table or a row of numbers goes on as
    long as anything in its lines differs.
    """

    def __init__(self) -> None:
        self._ids: list[int] = []  # the last ones, newest last
        self._runs = [0] * (LONGEST + 1)  # by period: tokens in a row that equal the one before it
        self.doubtful = False  # the last tokens came as they had come before, one whole round
        self.endless = False  # ... and went round often enough to be stopped

    def push(self, token: int) -> None:
        """One more token."""
        ids, runs = self._ids, self._runs
        self.doubtful = False
        for period in range(1, min(LONGEST, len(ids)) + 1):
            if ids[-period] != token:
                runs[period] = 0
                continue
            runs[period] += 1
            self.doubtful |= runs[period] >= max(DOUBT, period)
            self.endless |= runs[period] + period >= max(TIMES * period, TOKENS)
        ids.append(token)
        del ids[:-LONGEST]
