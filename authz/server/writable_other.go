//go:build !linux && !darwin

package server

// Where access cannot be checked without trying, every path counts as writable.

func writable(string) error { return nil }
