//go:build !linux && !darwin

package server

// Where this cannot be asked, nothing is said of it.

func writable(string) error { return nil }
