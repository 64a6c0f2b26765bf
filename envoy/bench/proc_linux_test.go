package main

import (
	"os"
	"syscall"
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
	dir := t.TempDir()
	var at syscall.Statfs_t
	if err := syscall.Statfs(dir, &at); err != nil {
		t.Fatal(err)
	}
	const tmpfs = 0x01021994
	onDisk := at.Type != tmpfs
	f, err := os.CreateTemp(dir, "")
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
	if written := after - before; onDisk && written < 1<<20 {
		t.Errorf("%d bytes count as written to the disk, want a MiB", written)
	}
}
