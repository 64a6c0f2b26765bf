package main

import (
	"errors"
	"os"
	"time"
)

// syncs is how often the disk is asked to keep a page.
const syncs = 200

// syncTimes are the times in which the disk of a folder keeps a page that is appended to a file: one write and one fsync. It is the
// least that a durable answer costs, so it is measured just before what is compared with it.
func syncTimes(dir string) (h histogram, err error) {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	page := make([]byte, os.Getpagesize())
	for range syncs {
		began := time.Now()
		if _, err := f.Write(page); err != nil {
			return h, err
		}
		if err := f.Sync(); err != nil {
			return h, err
		}
		h.add(time.Since(began))
	}
	return h, nil
}
