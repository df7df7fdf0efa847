# SPDX-License-Identifier: BSD-2-Clause
# A web server on a socket in this directory, its workers as they come, and curl.
mkdir -p logs www
cp words www/words
cat >conf <<'END'
worker_processes 2;
pid nginx.pid;
error_log error.log;
events { worker_connections 64; }
http {
	access_log access.log;
	client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
	gzip on; gzip_types *;
	server { listen unix:sock; root www; location /again { proxy_pass http://unix:sock:/; } }
}
END
[ "$(id -u)" != 0 ] || sed -i '1iuser root;' conf
nginx -p "$PWD" -c conf
for i in 1 2 3 4 5 6; do
	curl -s --unix-socket sock http://x/words | sha256sum &
	curl -s --unix-socket sock --compressed http://x/again/words | sha256sum
	wait
done
curl -s -o /dev/null -w '%{http_code}\n' --unix-socket sock http://x/missing
nginx -p "$PWD" -c conf -s reload 2>/dev/null
curl -s --unix-socket sock http://x/words | sha256sum
pid=$(cat nginx.pid)
nginx -p "$PWD" -c conf -s quit 2>/dev/null
while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
grep -c . access.log
grep -E '\[(alert|emerg|crit)\]|exited on signal' error.log
true
