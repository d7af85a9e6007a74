# make demo     serve a demo mailbox on 127.0.0.1:11110, and say how to read it
# make check    install what the tests need, and run them all
# make bench    compare with Courier, Dovecot, Cyrus and popa3d, as root
# make deb      build a Debian package, and say where it is
# make man      make the manual pages in build/man, of docs/man

PYTHON = python3

.PHONY: demo demo-stop check bench deb man

demo:
	@sh demo/start "$(PYTHON)"

demo-stop:
	@sh demo/stop

check:
	@sh tests/run "$(PYTHON)"

bench:
	@sh bench/run "$(PYTHON)"

deb:
	@packaging/build-deb "$(PYTHON)"

man:
	@docs/man/build "$(PYTHON)"
