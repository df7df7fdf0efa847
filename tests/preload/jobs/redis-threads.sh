# SPDX-License-Identifier: BSD-2-Clause
# A server with threads for its sockets and for what it frees, one that copies all it has from it, and both after
# a start from what they saved.  The load is not under the shim: it is the same in every run.
plain() { env -u LD_PRELOAD "$@"; }
cli() { plain redis-cli -s "$@"; }
up() { i=0; until [ "$(cli "$1" ping 2>/dev/null)" = PONG ]; do sleep 0.1; i=$((i + 1)); [ $i -lt 600 ] || exit 9; done; }
stopped() { cli "$1" shutdown save >/dev/null; }
start()
{
	mkdir -p d1 d2
	redis-server --port 0 --unixsocket "$PWD/s1" --dir d1 --io-threads 2 --io-threads-do-reads yes --lazyfree-lazy-user-del yes \
		--save 5 1000 --hz 100 --appendonly yes --enable-debug-command yes >l1 2>&1 &
	one=$!
	redis-server --port 0 --unixsocket "$PWD/s2" --dir d2 --save '' --enable-debug-command yes >l2 2>&1 &
	two=$!
	up s1; up s2
}
start
for k in 1 2 3 4 5 6; do
	plain redis-benchmark -s s1 -q -n 4000 -c 20 -P 8 -d 100 -r 5000 -t set,sadd,zadd,hset,lpush >/dev/null || echo "benchmark: $?"
	cli s1 bgsave >/dev/null
	cli s1 eval "for i = 1, 10000 do redis.call('set', 'k' .. i, string.rep(i, KEYS[1])) end return 1" 1 "$k"
done
cli s1 eval "for _, k in ipairs(redis.call('keys', '*')) do if not k:match('^k%d') then redis.call('unlink', k) end end" 0
cli s1 debug digest
cli s1 bgrewriteaof >/dev/null
cli s1 eval "return {redis.call('dbsize'), redis.call('get', 'k77'), redis.sha1hex(redis.call('get', 'k9999'))}" 0
while [ "$(cli s1 info persistence | grep -cE '(rdb_bgsave|aof_rewrite)_(in_progress|scheduled):1')" != 0 ]; do sleep 0.1; done
cli s1 info persistence | grep -oE '(rdb_last_bgsave|aof_last_bgrewrite)_status:..'
cli s2 eval "for i = 1, 50000 do redis.call('rpush', 'l' .. i % 100, i) end return 1" 0
cli s2 debug digest; cli s2 save
stopped s1; stopped s2; wait $one; echo $?; wait $two; echo $?
start
cli s1 debug digest; cli s2 debug digest
stopped s1; stopped s2; wait $one; echo $?; wait $two; echo $?
grep -hE 'crashed|BUG|Short read|Bad file' l1 l2
true
