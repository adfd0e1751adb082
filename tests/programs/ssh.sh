#!/bin/bash
# ssh: a login through PAM, with and without a terminal; rsync and scp over it.
# packages: openssh-server openssh-client rsync
# timeout: 90
. "$(dirname "$0")/lib.sh.inc"
mkdir -p /run/sshd
ssh-keygen -q -t ed25519 -N '' -f host
ssh-keygen -q -t ed25519 -N '' -f key
cp key.pub authorized; chmod 600 authorized
cat > sshd_config <<C
ListenAddress 127.0.0.1:18022
HostKey $scratch/host
PidFile $scratch/pid
AuthorizedKeysFile $scratch/authorized
StrictModes no
UsePAM yes
PermitRootLogin yes
Subsystem sftp internal-sftp
C
cat > config <<C
Host box
  HostName 127.0.0.1
  Port 18022
  User root
  IdentityFile $scratch/key
  UserKnownHostsFile $scratch/known
  StrictHostKeyChecking no
  LogLevel ERROR
C
/usr/sbin/sshd -D -f "$scratch/sshd_config" -E "$scratch/log" & background+=($!)
eventually grep -q listening log
in_box() { ssh -F "$scratch/config" "$@" < /dev/null; }
is "$(in_box box 'echo through; tty || :')" "through
not a tty"
like "$(in_box -tt box tty)" "/dev/pts/[0-9]+"
is "$(in_box box 'exit 7' || echo $?)" 7
# A session has a login uid.
is "$(in_box box 'cat /proc/self/loginuid')" 0
mkdir tree; for i in $(seq 300); do echo "$i" > "tree/$i"; done
rsync -a -e "ssh -F $scratch/config" tree/ "box:$scratch/copy/"
diff -r tree copy
head -c 20000000 /dev/urandom > big
scp -q -F config big "box:$scratch/big2"
cmp big big2
# Forwarding of a port.
ssh -F config -N -L 18023:127.0.0.1:18022 box & background+=($!)
eventually bash -c 'head -c 7 < /dev/tcp/127.0.0.1/18023 | grep -q SSH-2.0'
echo ok
