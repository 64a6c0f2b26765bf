package wal

import "syscall"

const (
	directFlag = syscall.O_DIRECT
	syncFlag   = syscall.O_DSYNC
)
