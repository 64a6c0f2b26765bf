//go:build linux || darwin

package main

import "golang.org/x/sys/unix"

// freeBytes is how much can still be written to the disk of a folder, 0 if nobody knows.
func freeBytes(dir string) uint64 {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return 0
	}
	return s.Bavail * uint64(s.Bsize)
}
