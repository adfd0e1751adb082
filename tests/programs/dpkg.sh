#!/bin/bash
# dpkg -i and apt-get install of a local package, inside the overlay only.
# packages: dpkg apt
# native: no
# timeout: 120
. "$(dirname "$0")/lib.sh.inc"
mkdir -p p/DEBIAN p/usr/local/bin p/etc
cat > p/DEBIAN/control <<'X'
Package: sandbox-hello
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: says hello
X
cat > p/DEBIAN/postinst <<'X'
#!/bin/sh
set -e
getent passwd hello-user > /dev/null || useradd -r hello-user
echo configured > /var/lib/sandbox-hello
X
chmod 755 p/DEBIAN/postinst
printf '#!/bin/sh\necho hello from the package\n' > p/usr/local/bin/sandbox-hello
chmod 755 p/usr/local/bin/sandbox-hello
echo setting=1 > p/etc/sandbox-hello.conf
dpkg-deb --root-owner-group -b p hello_1.0_all.deb > /dev/null
dpkg -i hello_1.0_all.deb > /dev/null
is "$(sandbox-hello)" "hello from the package"
is "$(cat /var/lib/sandbox-hello)" configured
id hello-user > /dev/null
is "$(dpkg-query -W -f='${Version}' sandbox-hello)" 1.0
sed -i 's/Version: .*/Version: 2.0/' p/DEBIAN/control
dpkg-deb --root-owner-group -b p hello_2.0_all.deb > /dev/null
DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts=/dev/null \
    install ./hello_2.0_all.deb > apt.log 2>&1 || { cat apt.log >&2; exit 1; }
is "$(dpkg-query -W -f='${Version}' sandbox-hello)" 2.0
dpkg -r sandbox-hello > /dev/null
test ! -e /usr/local/bin/sandbox-hello
echo ok
