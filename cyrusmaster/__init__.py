"""Runs the services of a cyrus.conf, with our `pop3d` or Cyrus's own as their workers.

    main, commandline      arguments, and how it starts
    conf, services         cyrus.conf: its grammar, and what its entries mean
    places                 `listen` and `proto`, as listening sockets
    pool, forkrate         whom to start and when, at one socket; nothing of the system is in there
    child                  from a fork to a worker
    master                 the loop: signals, messages, clients at the door

A program of its own, and not an option of couriertcpd: that one accepts connections, and everything
it knows is about them; a master accepts none, and everything it knows is about its workers. They
would share nothing but the word listen.
"""
