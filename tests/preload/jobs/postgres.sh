# SPDX-License-Identifier: BSD-2-Clause
# postgres.sh BIN: a cluster, made and used on a socket in this directory; as nobody, where this is root.
PATH=$1:$PATH
initdb -D data -A trust -U me --no-sync >initdb.log 2>&1 || { cat initdb.log; exit 9; }
pg_ctl -D data -w -t 200 -l log -o "-k $PWD -c listen_addresses='' -c shared_buffers=16MB -c fsync=off" start >start.log 2>&1 ||
	{ cat start.log log; exit 8; }
export PGHOST=$PWD PGUSER=me PGDATABASE=postgres
pgbench -q -i -s 2 >/dev/null 2>&1; echo $?
pgbench -n -c 4 -j 2 -t 200 >bench.log 2>&1; echo $?
grep -E 'actually processed|failed' bench.log
psql -At <<'SQL'
select sum(abalance) = (select sum(bbalance) from pgbench_branches), count(*) from pgbench_accounts;
select count(*) from pgbench_history;
create table t as select i, md5(i::text) as h from generate_series(1, 100000) i;
create index on t(h);
select sum(i), min(h), max(h) from t where h like 'a%';
set work_mem = '64kB';
select md5(string_agg(h, '' order by h)) from t;
select a.i, b.i from t a join t b on a.h < b.h and b.i = a.i + 1 order by a.h limit 3;
select 1 / 0;
vacuum full t;
select count(*) from t;
SQL
pg_ctl -D data -w -t 100 -m fast stop >/dev/null; echo $?
grep -E 'PANIC|terminated by signal' log
true
