//go:build !linux

package wal

// Here a write is followed by a sync.
const (
	directFlag = 0
	syncFlag   = 0
)
