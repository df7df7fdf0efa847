# SPDX-License-Identifier: BSD-2-Clause
"""database.py MEGABYTES: threads that write and read one sqlite database with a write-ahead log.

What is in a row follows from its key, so every reader can tell whether a row is right, whenever it comes.
"""

import hashlib
import sqlite3
import sys
import threading

SIZE = 40000		# bytes of a row
WRITERS, READERS = 4, 2
BATCH = 25		# rows of a transaction

errors = []


def value(key):
    return hashlib.shake_128(b'%d' % key).digest(SIZE)


def connect():
    db = sqlite3.connect('big.db', timeout=300, isolation_level=None)
    db.execute('pragma journal_mode=wal')
    db.execute('pragma synchronous=normal')
    db.execute('pragma cache_size=-16000')
    return db


def guarded(work):
    def run(*args):
        try:
            work(*args)
        except BaseException as e:	# pylint: disable=broad-except
            errors.append(repr(e))
    return run


@guarded
def write(first, last):
    db = connect()
    for at in range(first, last, BATCH):
        db.execute('begin immediate')
        db.executemany('insert into t values(?, ?, ?)',
                       ((k, f'name {k * 7919 % 100003}', value(k)) for k in range(at, min(at + BATCH, last))))
        db.execute('commit')
    db.execute('update t set name = name || "!" where k >= ? and k < ? and k % 5 = 0', (first, last))
    db.close()


@guarded
def read(done, rows):
    db = connect()
    k = 0
    while not done.is_set():
        k = (k * 1103515245 + 12345) % rows
        for key, v in db.execute('select k, v from t where k >= ? limit 3', (k,)):
            if v != value(key):
                errors.append(f'row {key} is wrong')
    db.close()


def main():
    rows = int(sys.argv[1]) * 1000000 // SIZE
    db = connect()
    db.execute('create table t(k integer primary key, name text, v blob)')
    db.execute('create index i on t(name)')
    done = threading.Event()
    readers = [threading.Thread(target=read, args=(done, rows)) for _ in range(READERS)]
    writers = [threading.Thread(target=write, args=(rows * i // WRITERS, rows * (i + 1) // WRITERS))
               for i in range(WRITERS)]
    for t in readers + writers:
        t.start()
    for t in writers:
        t.join()
    done.set()
    for t in readers:
        t.join()
    print(sorted(set(errors)))
    print(db.execute('pragma integrity_check').fetchall())
    print(db.execute('select count(*), sum(length(v)), sum(length(name)), min(name), max(name) from t').fetchall())
    print(db.execute('pragma wal_checkpoint(truncate)').fetchone()[0])
    everything = hashlib.md5()
    for row in db.execute('select * from t order by name, k'):
        everything.update(b'%d %s ' % (row[0], row[1].encode()) + row[2])
    print(everything.hexdigest())


main()
