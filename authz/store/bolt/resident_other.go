//go:build !linux

package bolt

import "go.etcd.io/bbolt"

// dropPages does nothing: other systems take back pages when they need the memory.
func dropPages(*bbolt.Tx) {}
