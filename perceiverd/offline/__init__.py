"""`perceiverd tag`: labels of files. Knows no daemon and no sockets. Import the modules."""
