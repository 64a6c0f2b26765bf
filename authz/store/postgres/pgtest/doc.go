// Package pgtest runs real PostgreSQL servers for tests. New gives a test a database of its own, on a server that all tests of a test
// binary share. Start gives it a server of its own, to kill, stop and starve.
//
// A server runs in a temporary directory and listens on a socket there and on a port of 127.0.0.1. PostgreSQL refuses to run as
// root, so root runs it as another user. When the test binary ends, however that happens, a watcher stops the server and removes the
// directory.
//
// Read server.go for the life of a server, find.go for where its programs come from, and database.go for databases.
package pgtest
