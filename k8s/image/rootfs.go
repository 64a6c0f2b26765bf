package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

const (
	uid     = 65532 // nonroot, as in distroless images
	program = "usr/local/bin/tollkeeper"
	config  = "etc/tollkeeper/tollkeeper.yaml"
	dataDir = "var/lib/tollkeeper"
	docs    = "usr/share/doc/tollkeeper"
)

//go:embed tollkeeper.yaml
var defaultConfig []byte

// file is a file of the image. The name of a folder ends with a slash.
type file struct {
	name  string
	mode  int64
	owner int
	data  []byte
}

// rootfs is all files of the image.
func rootfs(b binary, sbom []byte) []file {
	files := []file{
		{name: "etc/passwd", mode: 0o644, data: fmt.Appendf(nil, "root:x:0:0:root:/:/sbin/nologin\ntollkeeper:x:%d:%d:tollkeeper:/%s:/sbin/nologin\n", uid, uid, dataDir)},
		{name: "etc/group", mode: 0o644, data: fmt.Appendf(nil, "root:x:0:\ntollkeeper:x:%d:\n", uid)},
		{name: config, mode: 0o644, data: defaultConfig},
		{name: program, mode: 0o755, data: b.data},
		{name: docs + "/sbom.cdx.json", mode: 0o644, data: sbom},
		{name: dataDir + "/", mode: 0o700, owner: uid},
	}
	for _, m := range b.modules {
		for name, text := range m.texts {
			files = append(files, file{name: path.Join(docs, "licenses", m.path, name), mode: 0o644, data: text})
		}
	}
	return withFolders(files)
}

// withFolders adds the folders of the files, and sorts all by name, so that a folder comes before its files.
func withFolders(files []file) []file {
	all := make(map[string]file)
	for _, f := range files {
		for dir := path.Dir(strings.TrimSuffix(f.name, "/")); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir+"/"]; !ok {
				all[dir+"/"] = file{name: dir + "/", mode: 0o755}
			}
		}
		all[f.name] = f
	}
	return slices.SortedFunc(maps.Values(all), func(a, b file) int { return strings.Compare(a.name, b.name) })
}

// pack makes a tar of the files, with one modification time for all.
func pack(files []file, age time.Time) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Uid: f.owner, Gid: f.owner, Size: int64(len(f.data)), ModTime: age, Typeflag: tar.TypeReg}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

// compress returns the compressed layer, and the digest of the uncompressed one.
func compress(layer []byte) ([]byte, digest.Digest, error) {
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.DefaultCompression)
	if err != nil {
		return nil, "", err
	}
	if _, err := w.Write(layer); err != nil {
		return nil, "", err
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	return buf.Bytes(), digest.FromBytes(layer), nil
}
