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

func TestProc_CountsWhatIsWritten(t *testing.T) {
	before, err := writtenBytes(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	after, err := writtenBytes(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after == before {
		t.Skip("the folder for temporary files is not on a disk")
	}
	if after-before < 1<<20 {
		t.Errorf("%d bytes count as written, want a MiB", after-before)
	}
}
