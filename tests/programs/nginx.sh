#!/bin/bash
# nginx with ab: static files by sendfile, keep-alive, reload, several workers.
# packages: nginx-light apache2-utils curl
# timeout: 90
. "$(dirname "$0")/lib.sh.inc"
mkdir www logs
echo '<h1>hello</h1>' > www/index.html
head -c 2000000 /dev/urandom > www/big
chmod 755 "$scratch"
cat > nginx.conf <<X
worker_processes 2; pid $scratch/pid; error_log $scratch/logs/error; user root;
events { worker_connections 256; }
http {
  access_log $scratch/logs/access; sendfile on; tcp_nopush on;
  client_body_temp_path $scratch/b; proxy_temp_path $scratch/p; fastcgi_temp_path $scratch/f; uwsgi_temp_path $scratch/u; scgi_temp_path $scratch/s;
  server { listen 127.0.0.1:18081; root $scratch/www; location /proxy/ { proxy_pass http://127.0.0.1:18081/; } }
}
X
nginx -c "$scratch/nginx.conf" -g 'daemon off;' 2> start.log & background+=($!)
u=http://127.0.0.1:18081
eventually curl -sf $u/
is "$(curl -s $u/)" '<h1>hello</h1>'
is "$(curl -s $u/big | sha256sum)" "$(sha256sum < www/big)"
is "$(curl -s $u/proxy/)" '<h1>hello</h1>'
is "$(curl -s -o /dev/null -w '%{http_code}' $u/none)" 404
ab -q -n 2000 -c 20 $u/ > ab.out 2>&1
grep -q 'Failed requests: *0' ab.out
ab -q -k -n 3000 -c 10 $u/ > ab2.out 2>&1
grep -q 'Complete requests: *3000' ab2.out
ab -q -n 50 -c 5 $u/big > ab3.out 2>&1
grep -q 'Failed requests: *0' ab3.out
echo changed > www/index.html
kill -HUP "$(cat pid)"
sleep 0.5
is "$(curl -s $u/)" changed
kill -QUIT "$(cat pid)"
wait "${background[0]}"
echo ok
