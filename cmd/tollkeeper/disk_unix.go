//go:build linux || darwin

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// writable returns why files cannot be made in a folder, nil if they can.
func writable(dir string) error {
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}

// freeBytes is how much can still be written to the disk of a folder, 0 if nobody knows.
func freeBytes(dir string) uint64 {
	var s unix.Statfs_t
	if unix.Statfs(dir, &s) != nil {
		return 0
	}
	return s.Bavail * uint64(s.Bsize)
}
