# SPDX-License-Identifier: BSD-2-Clause
"""passes.py MODULE: of python's own tests of that name those that pass, one a line.

Nothing that needs more than this machine: no resource of test.support's is allowed.
"""

import faulthandler
import os
import sys
import unittest

from test import support


class Passes(unittest.TestResult):
    passes = []

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passes.append(test.id())


def main():
    support.use_resources = []
    # What a test prints, in whatever process, is no part of the result.
    out = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)
    faulthandler.enable()
    suite = unittest.defaultTestLoader.loadTestsFromName('test.' + sys.argv[1])
    del sys.argv[1:]
    result = Passes()
    suite.run(result)
    for test, why in result.failures + result.errors:
        print(test, why, file=sys.stderr)
    print(*sorted(result.passes), sep='\n', file=out, flush=True)


if __name__ == '__main__':
    main()
