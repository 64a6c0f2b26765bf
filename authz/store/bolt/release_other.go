//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package bolt

import "os"

// releaseFile closes a file on which bbolt panicked.
func releaseFile(f *os.File) {
	if f != nil {
		_ = f.Close()
	}
}
