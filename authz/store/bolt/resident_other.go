//go:build !linux

package bolt

import "go.etcd.io/bbolt"

// dropPages does nothing: elsewhere the system takes back pages by itself, when it needs the memory.
func dropPages(*bbolt.Tx) {}
