//go:build linux || darwin

package main

import "golang.org/x/sys/unix"

// freeBytes returns the free bytes on the disk of a directory, 0 if unknown.
func freeBytes(dir string) uint64 {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return 0
	}
	return s.Bavail * uint64(s.Bsize)
}
