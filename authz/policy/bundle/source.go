package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// maxDepth is how deep directories may be nested. A symbolic link to a parent exceeds it.
const maxDepth = 32

// Source is where a policy's files are. The zero value has no files.
//
// A source reads directories recursively. Rules are in *.rego files; data is in *.json, *.yaml and *.yml files. It skips other
// files, and names that begin with a dot, because Kubernetes keeps other versions of a mounted volume under such names. It
// follows symbolic links.
type Source struct {
	fsys  fs.FS // nil for the disk
	paths []string
	held  []file // the files, if they were read already
}

// Disk is a source of files and directories on disk.
func Disk(paths ...string) Source { return Source{paths: slices.Clone(paths)} }

// FS is a source of files in fsys: files below the given paths, or all files if there are no paths.
func FS(fsys fs.FS, paths ...string) Source {
	if len(paths) == 0 {
		paths = []string{"."}
	}
	return Source{fsys: fsys, paths: slices.Clone(paths)}
}

// Fingerprint identifies the content of all files that Compile would read. It changes whenever a file is added, removed,
// renamed or edited, even if its time stamp does not change. It fails if a file cannot be read.
func (s Source) Fingerprint() (string, error) {
	files, err := s.read(false)
	if err != nil {
		return "", err
	}
	return fingerprint(files), nil
}

// Hold reads the source now, without tests, and returns a source that keeps this content even if the files change.
func (s Source) Hold() (Source, error) {
	files, err := s.read(false)
	if err != nil {
		return Source{}, err
	}
	return Source{held: files}, nil
}

// packed is a file in the format of Pack.
type packed struct {
	Name  string   `json:"name"`
	Dir   []string `json:"dir,omitempty"`
	Bytes []byte   `json:"bytes"`
}

// Pack returns the content of the source, for Unpack.
func (s Source) Pack() ([]byte, error) {
	files, err := s.read(false)
	if err != nil {
		return nil, err
	}
	out := make([]packed, len(files))
	for i, f := range files {
		out[i] = packed{Name: f.name, Dir: f.dir, Bytes: f.bytes}
	}
	return json.Marshal(out)
}

// Unpack returns a source that Pack packed. It keeps the content, as after Hold.
func Unpack(raw []byte) (Source, error) {
	var list []packed
	if err := json.Unmarshal(raw, &list); err != nil {
		return Source{}, err
	}
	files := make([]file, len(list))
	for i, p := range list {
		files[i] = file{name: p.Name, dir: p.Dir, bytes: p.Bytes}
	}
	return Source{held: files}, nil
}

// file is one file of a source, with its content.
type file struct {
	name  string   // for people
	dir   []string // the directories from the path of the source to the file; data of the file goes below these names
	bytes []byte
}

func (f *file) isRego() bool { return path.Ext(f.name) == ".rego" }

// read returns the files of s sorted by name, with or without tests (*_test.rego).
func (s Source) read(tests bool) ([]file, error) {
	if s.held != nil {
		return s.held, nil
	}
	if len(s.paths) == 0 {
		return nil, loadError(faultFile, "", "no policy path is given")
	}
	w := walker{fsys: s.fsys, tests: tests}
	for _, p := range s.paths {
		if err := w.root(p); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(w.files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return slices.CompactFunc(w.files, func(a, b file) bool { return a.name == b.name }), nil
}

// walker collects files.
type walker struct {
	fsys  fs.FS
	tests bool
	files []file
}

// root reads one of the paths of a source.
func (w *walker) root(name string) error {
	info, err := w.stat(name)
	if err != nil {
		return fileError(name, err)
	}
	if info.IsDir() {
		return w.directory(name, nil)
	}
	if !known(name) {
		return loadError(faultFile, name, "want a policy (.rego) or data (.json, .yaml, .yml)")
	}
	return w.file(name, nil)
}

// directory reads everything below a directory.
func (w *walker) directory(name string, dir []string) error {
	if len(dir) > maxDepth {
		return loadError(faultFile, name, "more than %d directories deep", maxDepth)
	}
	entries, err := w.list(name)
	if err != nil {
		return fileError(name, err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		full := w.join(name, e.Name())
		info, err := w.stat(full) // follows symbolic links; the entry does not
		switch {
		case err != nil:
			err = fileError(full, err)
		case info.IsDir():
			err = w.directory(full, append(slices.Clone(dir), e.Name()))
		case known(full):
			err = w.file(full, dir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) file(name string, dir []string) error {
	if !w.tests && strings.HasSuffix(name, "_test.rego") {
		return nil
	}
	var b []byte
	var err error
	if w.fsys != nil {
		b, err = fs.ReadFile(w.fsys, name)
	} else {
		b, err = os.ReadFile(name)
	}
	if err != nil {
		return fileError(name, err)
	}
	w.files = append(w.files, file{name: name, dir: dir, bytes: b})
	return nil
}

func (w *walker) stat(name string) (fs.FileInfo, error) {
	if w.fsys != nil {
		return fs.Stat(w.fsys, name)
	}
	if name == "" {
		return nil, errors.New("the path is empty")
	}
	return os.Stat(name)
}

func (w *walker) list(name string) ([]fs.DirEntry, error) {
	if w.fsys != nil {
		return fs.ReadDir(w.fsys, name)
	}
	return os.ReadDir(name)
}

func (w *walker) join(dir, name string) string {
	if w.fsys != nil {
		return path.Join(dir, name)
	}
	return filepath.Join(dir, name)
}

// known reports whether a source reads files with this name.
func known(name string) bool {
	switch path.Ext(name) {
	case ".rego", ".json", ".yaml", ".yml":
		return true
	}
	return false
}

func fingerprint(files []file) string {
	h := sha256.New()
	for i := range files {
		writeField(h, files[i].name)
		writeField(h, string(files[i].bytes))
	}
	return shortSum(h)
}

// writeField hashes s with its length, so that no two lists of fields have the same bytes.
func writeField(h hash.Hash, s string) { fmt.Fprintf(h, "%d:%s", len(s), s) }

// shortSum is the beginning of a hash: enough to tell revisions apart, and short enough to read aloud.
func shortSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:8]) }
