// Package faulttest breaks real PostgreSQL servers under nodes whose callers never stop: it stops them, cuts connections in the middle of
// commits, fails over to standbys that have everything or not, fills the disk, changes the password, moves the clock. Each test says
// what callers saw, holds that no limit was exceeded and that no acknowledged write is lost, and has the nodes recover without a restart.
//
// Read rig_test.go first. Faults of single transactions are in package postgres, and envoy/nodes kills whole processes.
package faulttest
