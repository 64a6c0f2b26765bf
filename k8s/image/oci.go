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

// blob is a part of an image, addressed by its digest.
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

// path is the path of the blob in a layout.
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

// imageConfig says how to run the image (https://github.com/opencontainers/image-spec/blob/main/config.md).
func imageConfig(arch string, diffID digest.Digest, rel release) ocispec.Image {
	return ocispec.Image{
		Created:  &rel.created,
		Platform: ocispec.Platform{OS: "linux", Architecture: arch},
		Config: ocispec.ImageConfig{
			User:         fmt.Sprintf("%d:%d", uid, uid), // numbers: Kubernetes cannot tell from a name that it is not root
			ExposedPorts: map[string]struct{}{"9001/tcp": {}},
			// The server records its data directory in $HOME, where the CLI finds it.
			Env:        []string{"PATH=/usr/local/bin", "HOME=/" + dataDir},
			Entrypoint: []string{"/" + program},
			Cmd:        []string{"serve", "--config", "/" + config},
			Volumes:    map[string]struct{}{"/" + dataDir: {}},
			WorkingDir: "/" + dataDir, // so that a relative data_dir is on the volume
			Labels:     labels(rel),
		},
		RootFS:  ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}},
		History: []ocispec.History{{Created: &rel.created, CreatedBy: "make image"}},
	}
}

// labels go into the config, which docker inspect shows, and on the manifests and the index, which registries show.
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

// newIndex is the index of the images of all platforms.
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

// reference is the name and tag of an image.
type reference struct{ name, tag string }

var wellFormed = regexp.MustCompile(`^([a-z0-9][a-z0-9.:/_-]*):([A-Za-z0-9_][A-Za-z0-9._-]{0,127})$`)

func parseReference(s string) (reference, error) {
	m := wellFormed.FindStringSubmatch(s)
	if m == nil {
		return reference{}, fmt.Errorf("-name %q: want a name and a tag, such as registry.example.com/tollkeeper:1.0", s)
	}
	return reference{m[1], m[2]}, nil
}

// full is the name for containerd, with docker's default registry if the name has none.
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

// layout is the files of an OCI image layout with one entry, root
// (https://github.com/opencontainers/image-spec/blob/main/image-layout.md).
func layout(ref reference, root blob, images []image) []file {
	entry := root.Descriptor
	entry.Annotations = map[string]string{ocispec.AnnotationRefName: ref.tag, "io.containerd.image.name": ref.full()}
	// Neither fails: JSON can encode all their fields.
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

// writeLayout writes a layout into dir. It replaces an older layout, and refuses to replace anything else.
func writeLayout(dir string, files []file) error {
	if _, err := os.Stat(filepath.Join(dir, ocispec.ImageLayoutFile)); err == nil {
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s contains files that are not an image layout: choose another folder with -out", dir)
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

// dockerArchive is the image of one platform as docker save writes it: a layout, and a manifest.json for engines that do not
// read layouts.
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
