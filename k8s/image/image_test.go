package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
)

// epoch is the time of the image under test.
const epoch = 1767225600 // 2026-01-01

var (
	tool  string // path of the compiled command
	built string // folder with its output, for this processor
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "tollkeeper-image-test-")
		if err == nil {
			defer func() { _ = os.RemoveAll(dir) }()
			tool, built = filepath.Join(dir, "image"), filepath.Join(dir, "first")
			if err = execute("go", nil, "build", "-o", tool, "."); err == nil {
				if err = os.Chdir(filepath.Join("..", "..")); err == nil { // where make image runs the command
					err = buildImage(built)
				}
			}
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

func buildImage(out string, env ...string) error {
	env = append([]string{fmt.Sprint("SOURCE_DATE_EPOCH=", epoch)}, env...)
	return execute(tool, env, "-arch", runtime.GOARCH, "-version", "1.2.3", "-name", "registry.example/team/tollkeeper:1.2", "-out", out)
}

func execute(name string, env []string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// TestImage_IsReproducible builds again with other values of the variables that could change the result.
func TestImage_IsReproducible(t *testing.T) {
	again := filepath.Join(t.TempDir(), "elsewhere")
	if err := buildImage(again, "GOFLAGS=-tags=never", "GOAMD64=v2", "GOARM64=v8.1", "TZ=Asia/Tokyo", "LC_ALL=C", "TMPDIR="+t.TempDir()); err != nil {
		t.Fatal(err)
	}
	first, second := sums(t, built), sums(t, again)
	if !maps.Equal(first, second) {
		t.Errorf("two builds differ:\n%v\n%v", first, second)
	}
	if len(first) != 7+1 { // manifest, config, layer; index and two files of the layout; tar, SBOM
		t.Errorf("%d files were written: %v", len(first), first)
	}
}

func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		out[rel] = digest.FromBytes(data).String()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// pulled is the image as another implementation of the format reads it, which verifies every digest and size.
type pulled struct {
	index    ocispec.Index
	manifest ocispec.Manifest
	config   ocispec.Image
	diffID   digest.Digest     // of the uncompressed layer
	files    map[string]*entry // in the layer
	read     []digest.Digest
}

// once is the unpacked image, which tests share and only read.
var once *pulled

func pull(t *testing.T) *pulled {
	t.Helper()
	if once != nil {
		return once
	}
	store, err := oci.New(filepath.Join(built, "oci"))
	if err != nil {
		t.Fatal(err)
	}
	p := &pulled{}
	fetch := func(d ocispec.Descriptor) []byte {
		t.Helper()
		data, err := content.FetchAll(t.Context(), store, d)
		if err != nil {
			t.Fatalf("%s %s: %v", d.MediaType, d.Digest, err)
		}
		p.read = append(p.read, d.Digest)
		return data
	}
	root, err := store.Resolve(t.Context(), "1.2")
	if err != nil {
		t.Fatal(err)
	}
	decode(t, fetch(root), &p.index)
	if len(p.index.Manifests) != 1 {
		t.Fatalf("the index has %d images: want one", len(p.index.Manifests))
	}
	decode(t, fetch(p.index.Manifests[0]), &p.manifest)
	decode(t, fetch(p.manifest.Config), &p.config)
	if len(p.manifest.Layers) != 1 {
		t.Fatalf("the image has %d layers: want one", len(p.manifest.Layers))
	}
	z, err := gzip.NewReader(bytes.NewReader(fetch(p.manifest.Layers[0])))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	p.diffID, p.files = digest.FromBytes(layer), entries(t, layer)
	once = p
	return p
}

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in %.200s", err, data)
	}
}

func TestImage_Layout(t *testing.T) {
	p := pull(t)
	if got := []digest.Digest{p.diffID}; !slices.Equal(got, p.config.RootFS.DiffIDs) {
		t.Errorf("the uncompressed layer is %v, and the config says %v", got, p.config.RootFS.DiffIDs)
	}
	blobs, err := os.ReadDir(filepath.Join(built, "oci", "blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range blobs {
		if !slices.Contains(p.read, digest.NewDigestFromEncoded(digest.SHA256, b.Name())) {
			t.Errorf("nothing refers to blob %s", b.Name())
		}
	}
	want := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if got := p.index.Manifests[0].Platform; got == nil || got.OS != want.OS || got.Architecture != want.Architecture {
		t.Errorf("the index says platform %v: want %v", got, want)
	}
	if p.config.OS != want.OS || p.config.Architecture != want.Architecture {
		t.Errorf("the config says platform %v: want %v", p.config.Platform, want)
	}
	var top ocispec.Index
	data, err := os.ReadFile(filepath.Join(built, "oci", "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	decode(t, data, &top)
	if got := top.Manifests[0].Annotations["io.containerd.image.name"]; got != "registry.example/team/tollkeeper:1.2" {
		t.Errorf("the name for containerd is %q", got)
	}
}

func TestImage_Config(t *testing.T) {
	p := pull(t)
	c := p.config.Config
	if c.User != "65532:65532" {
		t.Errorf("user %q", c.User)
	}
	if got := append(slices.Clone(c.Entrypoint), c.Cmd...); !slices.Equal(got, []string{"/usr/local/bin/tollkeeper", "serve", "--config", "/etc/tollkeeper/tollkeeper.yaml"}) {
		t.Errorf("runs %q", got)
	}
	if got := slices.Collect(maps.Keys(c.ExposedPorts)); !slices.Equal(got, []string{"9001/tcp"}) {
		t.Errorf("exposes %v", got)
	}
	if got := slices.Collect(maps.Keys(c.Volumes)); !slices.Equal(got, []string{"/var/lib/tollkeeper"}) {
		t.Errorf("volumes %v", got)
	}
	when := time.Unix(epoch, 0).UTC()
	if p.config.Created == nil || !p.config.Created.Equal(when) {
		t.Errorf("created %v: want %v", p.config.Created, when)
	}
	for name, want := range map[string]string{
		"title": "Tollkeeper", "source": "https://github.com/tollkeeper-authz/tollkeeper", "version": "1.2.3",
		"licenses": "Apache-2.0", "created": when.Format(time.RFC3339),
	} {
		for place, labels := range map[string]map[string]string{"config": c.Labels, "manifest": p.manifest.Annotations, "index": p.index.Annotations} {
			if got := labels["org.opencontainers.image."+name]; got != want {
				t.Errorf("%s: %s is %q: want %q", place, name, got, want)
			}
		}
	}
}

// entries reads a tar, and wants folders before their files.
func entries(t *testing.T, layer []byte) map[string]*entry {
	t.Helper()
	out := make(map[string]*entry)
	for r := tar.NewReader(bytes.NewReader(layer)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if parent := filepath.Dir(strings.TrimSuffix(h.Name, "/")) + "/"; parent != "./" && out[parent] == nil {
			t.Errorf("%s comes before its folder", h.Name)
		}
		if out[h.Name] != nil {
			t.Errorf("%s occurs twice", h.Name)
		}
		out[h.Name] = &entry{h, data}
	}
}

type entry struct {
	*tar.Header
	data []byte
}

func TestImage_Files(t *testing.T) {
	all := pull(t).files
	for name, e := range all {
		isDir := strings.HasSuffix(name, "/")
		owner, mode := 0, int64(0o644)
		switch {
		case name == "var/lib/tollkeeper/":
			owner, mode = 65532, 0o700
		case name == "usr/local/bin/tollkeeper", isDir:
			mode = 0o755
		}
		if e.Mode != mode || e.Uid != owner || e.Gid != owner {
			t.Errorf("%s: mode %o, owner %d:%d: want %o, %d", name, e.Mode, e.Uid, e.Gid, mode, owner)
		}
		if (e.Typeflag == tar.TypeDir) != isDir || !isDir && e.Typeflag != tar.TypeReg {
			t.Errorf("%s: type %q", name, e.Typeflag)
		}
		if !e.ModTime.Equal(time.Unix(epoch, 0)) {
			t.Errorf("%s: modified %v", name, e.ModTime)
		}
		if top, _, _ := strings.Cut(name, "/"); !slices.Contains([]string{"etc", "usr", "var"}, top) {
			t.Errorf("%s: unexpected file", name)
		}
	}
	for name, want := range map[string]string{
		"etc/passwd": "tollkeeper:x:65532:65532:tollkeeper:/var/lib/tollkeeper:/sbin/nologin\n",
		"etc/group":  "tollkeeper:x:65532:\n",
	} {
		if e := all[name]; e == nil || !strings.Contains(string(e.data), want) {
			t.Errorf("%s has no line %q", name, want)
		}
	}
	for _, name := range []string{"github.com/tollkeeper-authz/tollkeeper/LICENSE", "stdlib/LICENSE", "google.golang.org/grpc/NOTICE.txt"} {
		if e := all["usr/share/doc/tollkeeper/licenses/"+name]; e == nil || len(e.data) == 0 {
			t.Errorf("licence %s is missing", name)
		}
	}
}

func TestBinary_NeedsNothing(t *testing.T) {
	data := pull(t).files["usr/local/bin/tollkeeper"].data
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary is not static: it has a segment %v", p.Type)
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil || f.Section(".zdebug_info") != nil {
		t.Error("the binary is not stripped")
	}
	root, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte(root+"/")) {
		t.Errorf("the binary contains the build folder %s", root)
	}
}

func TestSBOM_ListsEveryModule(t *testing.T) {
	all := pull(t).files
	inside := all["usr/share/doc/tollkeeper/sbom.cdx.json"].data
	beside, err := os.ReadFile(filepath.Join(built, "sbom-linux-"+runtime.GOARCH+".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(inside, beside) {
		t.Error("the SBOM in the image and the one beside it differ")
	}
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(inside), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	self := bom.Metadata.Component
	sum := sha256.Sum256(all["usr/local/bin/tollkeeper"].data)
	if h := *self.Hashes; h[0].Value != hex.EncodeToString(sum[:]) || self.Version != "1.2.3" {
		t.Errorf("the SBOM describes another binary: %+v", self)
	}
	urls := []string{self.PackageURL}
	for _, c := range append(*bom.Components, *self) {
		urls = append(urls, c.PackageURL)
		if c.Version == "" || c.Licenses == nil {
			t.Errorf("%s %s: no version, or a licence that licenceIDs does not know", c.Name, c.Version)
		}
	}
	for _, want := range []string{
		"pkg:golang/github.com/tollkeeper-authz/tollkeeper@1.2.3", "pkg:golang/stdlib@" + strings.TrimPrefix(runtime.Version(), "go"),
		"pkg:golang/google.golang.org/grpc@", "pkg:golang/golang.org/x/crypto/x509roots/fallback@",
	} {
		if !slices.ContainsFunc(urls, func(u string) bool { return strings.HasPrefix(u, want) }) {
			t.Errorf("%s is not in %v", want, urls)
		}
	}
}

// TestDockerArchive_HoldsTheImage reads the tar by its manifest.json, as docker load does.
func TestDockerArchive_HoldsTheImage(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(built, "tollkeeper-linux-"+runtime.GOARCH+".tar"))
	if err != nil {
		t.Fatal(err)
	}
	all := entries(t, data)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	decode(t, all["manifest.json"].data, &manifest)
	if len(manifest) != 1 || !slices.Equal(manifest[0].RepoTags, []string{"registry.example/team/tollkeeper:1.2"}) || len(manifest[0].Layers) != 1 {
		t.Fatalf("manifest.json is %+v", manifest)
	}
	p := pull(t)
	for path, want := range map[string]digest.Digest{manifest[0].Config: p.manifest.Config.Digest, manifest[0].Layers[0]: p.manifest.Layers[0].Digest} {
		if e := all[path]; e == nil || digest.FromBytes(e.data) != want {
			t.Errorf("%s is not %s", path, want)
		}
	}
	var index ocispec.Index
	decode(t, all["index.json"].data, &index)
	if d := index.Manifests[0]; all["blobs/sha256/"+d.Digest.Encoded()] == nil || d.Digest != p.index.Manifests[0].Digest {
		t.Errorf("index.json names %s: want the image, %s", d.Digest, p.index.Manifests[0].Digest)
	}
}
