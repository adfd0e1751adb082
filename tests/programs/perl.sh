#!/bin/bash
# perl: files, processes, sockets, signals.
# packages: perl
. "$(dirname "$0")/lib.sh.inc"
cat > t.pl <<'X'
use strict; use warnings; use POSIX qw(:sys_wait_h mkfifo); use Socket; use IO::Socket::INET; use IO::Select;
use File::Temp qw(tempdir); use File::Find; use Fcntl qw(:flock); use Time::HiRes qw(sleep time); use threads;
my @l = map { $_ * $_ } grep { $_ % 2 } 1 .. 99; my $s = 0; $s += $_ for @l; die unless $s == 166650;
open(my $f, '>', 'f') or die; print $f "line $_\n" for 1 .. 1000; close $f;
open($f, '<', 'f') or die; my $n = 0; while (<$f>) { $n++ if /9/ } die unless $n == 271;
flock($f, LOCK_EX) or die;
die unless `echo out` eq "out\n" && system('exit 3;') >> 8 == 3;
my $pid = fork; if (!$pid) { exit 7 } waitpid($pid, 0); die unless WEXITSTATUS($?) == 7;
open(my $p, '-|', 'seq', '5') or die; my @o = <$p>; die unless @o == 5; close $p;
open($p, '|-', 'cat > piped') or die; print $p "x"; close $p; die unless -s 'piped' == 1;
my $hit = 0; $SIG{ALRM} = sub { $hit = 1; die "alarm\n" };
eval { Time::HiRes::alarm(0.1); sleep 5; }; die unless $@ eq "alarm\n" && $hit;
my $srv = IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', Proto => 'tcp') or die;
if (!fork) { my $c = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $srv->sockport) or exit 1; print $c "hello\n"; my $r = <$c>; exit($r eq "HELLO\n" ? 0 : 2) }
my $c = $srv->accept; my $line = <$c>; print $c uc $line; close $c; wait; die if $?;
socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, PF_UNSPEC) or die; syswrite($a, "z"); sysread($b, my $z, 1); die unless $z eq 'z';
my $t = threads->create(sub { return 42 }); die unless $t->join == 42;
my $count = 0; find(sub { $count++ }, '.'); die unless $count >= 3;
$0 = "renamed"; my @st = stat('f'); die unless $st[7] == -s 'f';
rename 'f', 'g' or die; unlink 'g' or die; mkdir 'd' or die; rmdir 'd' or die; symlink 'x', 'l' or die; die unless readlink 'l' eq 'x';
my %h; $h{$_ % 100}++ for 1 .. 100000; die unless $h{7} == 1000;
print "ok\n";
X
is "$(perl t.pl)" ok
