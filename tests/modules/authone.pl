#!/usr/bin/perl
# authone - let one user in: name, password, uid, gid and home are the lines of $account
use strict;
use warnings;
use POSIX qw(dup2 setgid setuid);

my $account = "/etc/courier/authone";
$^F = 3;    # what is on descriptor 3 is for the next program

sub start_over {    # it can't tell: the login program again, as it was called
    my @argv = map { $ENV{"AUTHARGV$_"} } 0 .. ($ENV{AUTHARGC} || 0) - 1;
    exec { $ENV{AUTHUSER} } @argv if $ENV{AUTHUSER} && @argv;
    exit 1;
}

sub become_next { exec { $ARGV[0] } @ARGV or exit 1 }

become_next() if $ENV{AUTHENTICATED};
open(my $in, "<&=", 3) or die "AUTHFAILURE\n";
my $record = do { local $/; <$in> };
close $in;
die "AUTHFAILURE\n" unless length $record && @ARGV;

open(my $file, "<", $account) or start_over();
chomp(my ($user, $password, $uid, $gid, $home) = <$file>);
close $file;
start_over() unless $uid && $gid && $home;

if ($record =~ /\A[^\n]+\nlogin\n\Q$user\E\n\Q$password\E\n\n?\z/) {
    $) = "$gid $gid";    # the supplementary groups too
    setgid($gid) && setuid($uid) && $> == $uid && chdir($home) or exit 1;
    @ENV{qw(AUTHENTICATED AUTHADDR)} = ($user, $user);
    @ENV{qw(AUTHFULLNAME MAILDIR MAILDIRQUOTA OPTIONS)} = ("", "", "", "");
    become_next();
}
pipe(my $reader, my $writer) or start_over();
syswrite($writer, $record) == length $record && close $writer or start_over();
dup2(fileno $reader, 3);
become_next();
