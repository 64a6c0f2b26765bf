package main

import (
	"os"
	"testing"
)

func TestProc_ReadsThisProcess(t *testing.T) {
	used, err := cpuTime(os.Getpid())
	if err != nil || used <= 0 {
		t.Errorf("this process has used %v, %v", used, err)
	}
	if held, err := residentBytes(os.Getpid()); err != nil || held < 1<<20 {
		t.Errorf("this process holds %d bytes, %v", held, err)
	}
}
