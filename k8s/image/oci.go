package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// blob is a piece of an image, known by its digest.
type blob struct {
	ocispec.Descriptor
	data []byte
}

func newBlob(mediaType string, data []byte) blob {
	return blob{ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}, data}
}

func newJSON(mediaType string, v any) (blob, error) {
	data, err := json.Marshal(v)
	return newBlob(mediaType, data), err
}

// path is where the blob lies in a layout.
func (b blob) path() string {
	return ocispec.ImageBlobsDir + "/" + b.Digest.Algorithm().String() + "/" + b.Digest.Encoded()
}

// image is the image of one platform.
type image struct {
	arch                    string
	manifest, config, layer blob
	sbom                    []byte
}

// assemble makes the image of a binary.
func assemble(b binary, rel release) (image, error) {
	sbom, err := writeSBOM(b, rel)
	if err != nil {
		return image{}, err
	}
	packed, err := pack(rootfs(b, sbom), rel.created)
	if err != nil {
		return image{}, err
	}
	compressed, diffID, err := compress(packed)
	if err != nil {
		return image{}, err
	}
	img := image{arch: b.arch, sbom: sbom, layer: newBlob(ocispec.MediaTypeImageLayerGzip, compressed)}
	if img.config, err = newJSON(ocispec.MediaTypeImageConfig, imageConfig(b.arch, diffID, rel)); err != nil {
		return image{}, err
	}
	img.manifest, err = newJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: img.config.Descriptor, Layers: []ocispec.Descriptor{img.layer.Descriptor}, Annotations: labels(rel),
	})
	return img, err
}

// imageConfig says how the image is run.
func imageConfig(arch string, diffID digest.Digest, rel release) ocispec.Image {
	return ocispec.Image{
		Created:  &rel.created,
		Platform: ocispec.Platform{OS: "linux", Architecture: arch},
		Config: ocispec.ImageConfig{
			User:         fmt.Sprintf("%d:%d", uid, uid), // numbers, by which Kubernetes sees that it is not root
			ExposedPorts: map[string]struct{}{"9001/tcp": {}},
			// The server leaves word of its data directory in its home, where the command line finds it.
			Env:        []string{"PATH=/usr/local/bin", "HOME=/" + dataDir},
			Entrypoint: []string{"/" + program},
			Cmd:        []string{"serve", "--config", "/" + config},
			Volumes:    map[string]struct{}{"/" + dataDir: {}},
			WorkingDir: "/" + dataDir, // a configuration with a relative data_dir means one on the volume
			Labels:     labels(rel),
		},
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History: []ocispec.History{{Created: &rel.created, CreatedBy: "make image"}},
	}
}

// labels are in the config, where docker inspect shows them, and on manifests and index, where registries do.
func labels(rel release) map[string]string {
	l := map[string]string{
		ocispec.AnnotationTitle:         "Tollkeeper",
		ocispec.AnnotationDescription:   "External authorizer for Envoy: keys, revocation, quota and Rego policies in one call",
		ocispec.AnnotationSource:        "https://" + modulePath,
		ocispec.AnnotationDocumentation: "https://" + modulePath + "#readme",
		ocispec.AnnotationLicenses:      "Apache-2.0",
		ocispec.AnnotationVersion:       rel.version,
		ocispec.AnnotationCreated:       rel.created.Format(time.RFC3339),
	}
	if rel.revision != "" {
		l[ocispec.AnnotationRevision] = rel.revision
	}
	return l
}

// newIndex is the image of all platforms.
func newIndex(images []image, rel release) (blob, error) {
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Annotations: labels(rel),
	}
	for i := range images {
		d := images[i].manifest.Descriptor
		d.Platform = &ocispec.Platform{OS: "linux", Architecture: images[i].arch}
		index.Manifests = append(index.Manifests, d)
	}
	return newJSON(ocispec.MediaTypeImageIndex, index)
}

// reference is the name of an image.
type reference struct{ name, tag string }

var wellFormed = regexp.MustCompile(`^([a-z0-9][a-z0-9.:/_-]*):([A-Za-z0-9_][A-Za-z0-9._-]{0,127})$`)

func parseReference(s string) (reference, error) {
	m := wellFormed.FindStringSubmatch(s)
	if m == nil {
		return reference{}, fmt.Errorf("-name %q: want a name and a tag, such as registry.example.com/tollkeeper:1.0", s)
	}
	return reference{m[1], m[2]}, nil
}

// full is the name as containerd wants it, with the registry that docker means when none is named.
func (r reference) full() string {
	first, _, nested := strings.Cut(r.name, "/")
	switch {
	case !nested:
		return "docker.io/library/" + r.name + ":" + r.tag
	case !strings.ContainsAny(first, ".:") && first != "localhost":
		return "docker.io/" + r.name + ":" + r.tag
	}
	return r.name + ":" + r.tag
}

// layout is the files of an OCI image layout whose one entry is root.
func layout(ref reference, root blob, images []image) []file {
	entry := root.Descriptor
	entry.Annotations = map[string]string{ocispec.AnnotationRefName: ref.tag, "io.containerd.image.name": ref.full()}
	// Neither can fail: there is nothing in them that JSON cannot say.
	mark, _ := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	index, _ := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{entry},
	})
	files := []file{
		{name: ocispec.ImageLayoutFile, mode: 0o644, data: mark},
		{name: ocispec.ImageIndexFile, mode: 0o644, data: index},
		{name: root.path(), mode: 0o644, data: root.data},
	}
	for i := range images {
		for _, b := range []blob{images[i].manifest, images[i].config, images[i].layer} {
			files = append(files, file{name: b.path(), mode: 0o644, data: b.data})
		}
	}
	return withFolders(files)
}

// writeLayout writes a layout in the place of the one that is there, and of nothing else.
func writeLayout(dir string, files []file) error {
	if _, err := os.Stat(filepath.Join(dir, ocispec.ImageLayoutFile)); err == nil {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s holds something that is not an image layout: name another folder with -out", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		name := filepath.Join(dir, filepath.FromSlash(f.name))
		var err error
		if strings.HasSuffix(f.name, "/") {
			err = os.MkdirAll(name, 0o755)
		} else {
			err = os.WriteFile(name, f.data, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dockerArchive is the image of one platform as docker save writes it: a layout, with a manifest for engines that know
// none.
func dockerArchive(ref reference, img *image) ([]byte, error) {
	type entry struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	manifest, err := json.Marshal([]entry{{img.config.path(), []string{ref.name + ":" + ref.tag}, []string{img.layer.path()}}})
	if err != nil {
		return nil, err
	}
	files := layout(ref, img.manifest, []image{*img})
	return pack(withFolders(append(files, file{name: "manifest.json", mode: 0o644, data: manifest})), time.Unix(0, 0))
}
