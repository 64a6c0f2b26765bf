package bundle

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// configMap lays files out as Kubernetes mounts them and returns a function that swaps in another version.
func configMap(t *testing.T) (dir string, publish func(version, content string)) {
	t.Helper()
	dir = t.TempDir()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Symlink(filepath.Join("..data", "p.rego"), filepath.Join(dir, "p.rego")))
	return dir, func(version, content string) {
		must(os.Mkdir(filepath.Join(dir, ".."+version), 0o755))
		must(os.WriteFile(filepath.Join(dir, ".."+version, "p.rego"), []byte(content), 0o644))
		must(os.Symlink(".."+version, filepath.Join(dir, "..tmp")))
		must(os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
	}
}

func TestSource_Disk(t *testing.T) {
	dir, publish := configMap(t)
	publish("v1", allowAll)
	src := Disk(dir)
	b := mustCompile(t, src, Options{})
	one, err := src.Fingerprint()
	if err != nil || one != b.Fingerprint {
		t.Fatalf("fingerprint %q of the files, %q of the policy, %v", one, b.Fingerprint, err)
	}
	publish("v2", strings.Replace(allowAll, "true", "4242", 1))
	if two, err := src.Fingerprint(); err != nil || two == one {
		t.Errorf("the swap went unnoticed: %v", err)
	}
	single := mustCompile(t, Disk(filepath.Join(dir, "p.rego")), Options{})
	if single.Fingerprint == one {
		t.Error("the second version was not read")
	}
	// A file below two of the paths is one file.
	mustCompile(t, Disk(dir, filepath.Join(dir, "p.rego")), Options{})
}

func TestSource_DiskFaults(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	_, err := Compile(t.Context(), Disk(missing), Options{})
	if err == nil || err.Error() != missing+": no such file or directory" {
		t.Errorf("got %v", err)
	}
	if _, err := Compile(t.Context(), Disk(""), Options{}); err == nil {
		t.Error("the empty path was read")
	}
	loop := t.TempDir()
	if err := os.Symlink(loop, filepath.Join(loop, "again")); err != nil {
		t.Fatal(err)
	}
	if _, err := Disk(loop).Fingerprint(); err == nil {
		t.Error("a loop of links was read to its end")
	}
	dangling := t.TempDir()
	if err := os.Symlink("nowhere.rego", filepath.Join(dangling, "p.rego")); err != nil {
		t.Fatal(err)
	}
	if _, err := Compile(t.Context(), Disk(dangling), Options{}); err == nil {
		t.Error("a dangling link was passed over")
	}
}

func TestSource_FSPaths(t *testing.T) {
	fsys := fstest.MapFS{
		"bundle/p.rego": {Data: []byte(allowAll)},
		"bundle/d.json": {Data: []byte(`{"a": 1}`)},
		"other/p.rego":  {Data: []byte("not rego")},
	}
	b := mustCompile(t, FS(fsys, "bundle"), Options{})
	if _, ok := b.Data("a"); !ok {
		t.Error("the data of a path is not at the root")
	}
	sub, err := fs.Sub(fsys, "bundle")
	if err != nil {
		t.Fatal(err)
	}
	mustCompile(t, FS(sub), Options{})
}
