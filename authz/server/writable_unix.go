//go:build linux || darwin

package server

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// writable returns why a file cannot be written, or why no file can be made in a folder, and nil if it can.
func writable(path string) error {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	mode := uint32(unix.W_OK)
	if s.Mode&unix.S_IFMT == unix.S_IFDIR {
		mode |= unix.X_OK
	}
	if err := unix.Faccessat(unix.AT_FDCWD, path, mode, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}
