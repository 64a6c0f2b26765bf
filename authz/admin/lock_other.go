//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package admin

import "os"

// Where files cannot be locked, a file that is there counts as locked.

func lock(*os.File) error { return nil }

func locked(*os.File) bool { return true }
