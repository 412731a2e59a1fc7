# ---------------------------------------------------------------------------------------------------- web

# Modules without a mirror: the box's own web server answers for the unpacked tree, on loopback alone.

WEB_PORT=8482
WEB_SECONDS=10

# WEB: httpd or apache2, or nothing; WEB_FILE: where its configuration of ours goes
find_web() {
  WEB='' WEB_FILE=''
  if [ -d "$ROOT/etc/httpd/conf.d" ]; then
    WEB=httpd WEB_FILE=/etc/httpd/conf.d/gapferry.conf
  elif [ -d "$ROOT/etc/apache2/conf-enabled" ]; then
    WEB=apache2 WEB_FILE=/etc/apache2/conf-enabled/gapferry.conf
  fi
}

# What a FreePBX box must be answered, and nothing that would make other bytes of a file: no PHP, no packing.
web_configuration() {
  cat <<TEXT
# Written by gapferry-box: FreePBX modules from $DATA/origin, for this box alone. gapferry-box uninstall takes it away.
Listen 127.0.0.1:$WEB_PORT
<VirtualHost 127.0.0.1:$WEB_PORT>
  ServerName 127.0.0.1
  DocumentRoot "$DATA/origin"
  # an error with a body would be read as a list, and any error for a sound sets MODULE_REPO back to the internet
  Alias /empty.txt "$DATA/empty.txt"
  ErrorDocument 404 /empty.txt
  <LocationMatch "^/+(sounds/|version-[^/]*[.]html$)">
    FallbackResource /empty.txt
  </LocationMatch>
  <LocationMatch "[.](php[0-9]?|phtml|phar|phps|pl|py|cgi|shtml|var)(/|$)">
    SetHandler default-handler
  </LocationMatch>
  <IfModule mod_env.c>
    SetEnv no-gzip 1
  </IfModule>
  <Directory "$DATA">
    Options FollowSymLinks
    AllowOverride None
    Require local
    DirectoryIndex disabled
    <IfModule mod_mime.c>
      RemoveEncoding .gz .tgz .gpg .Z .bz2 .xz
      RemoveHandler .php .pl .py .cgi .shtml .var
      RemoveOutputFilter .shtml
    </IfModule>
  </Directory>
</VirtualHost>
TEXT
}

# Status 1 where another program has the port: a web server that is told to listen there would end.
web_port_is_free() {
  "$(any_python)" -c 'import socket, sys
one = socket.socket()
one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    one.bind(("127.0.0.1", int(sys.argv[1])))
except socket.error:
    sys.exit(1)' "$WEB_PORT"
}

reload_web() {
  service reload "$WEB"
}

# web_answers PATH: with the bytes that are in the tree; the server may need a moment
web_answers() {
  "$(any_python)" -c 'import sys, time
try:
    from urllib.request import ProxyHandler, build_opener
except ImportError:
    from urllib2 import ProxyHandler, build_opener
with open(sys.argv[2], "rb") as file:
    wanted = file.read()
end = time.time() + float(sys.argv[3])
while True:
    try:
        if build_opener(ProxyHandler({})).open(sys.argv[1], b"", 2).read(len(wanted) + 1) == wanted:
            sys.exit(0)
    except (EnvironmentError, ValueError):
        pass
    if time.time() > end:
        sys.exit(1)
    time.sleep(0.2)' "http://127.0.0.1:$WEB_PORT/$1" "$ROOT$DATA/origin/$1" "$WEB_SECONDS"
}
