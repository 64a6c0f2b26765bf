package server

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tollkeeper-authz/tollkeeper/authz/apikey"
)

// minPepper is the shortest pepper that is accepted, in bytes.
const minPepper = 16

// readPepper reads the pepper of key digests, none for "". A pepper that is too short stops the start.
func readPepper(path string) (apikey.Hasher, error) {
	if path == "" {
		return apikey.Hasher{}, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return apikey.Hasher{}, err
	}
	if raw = bytes.TrimRight(raw, "\r\n"); len(raw) < minPepper {
		return apikey.Hasher{}, fmt.Errorf("%s holds %d bytes: want %d or more", path, len(raw), minPepper)
	}
	return apikey.NewHasher(raw), nil
}

// readSecret reads a file with a secret. A missing or empty file stops the start.
func readSecret(field, path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("%s: %w", field, err)
	}
	if raw = bytes.TrimRight(raw, "\r\n"); len(raw) == 0 {
		return "", fmt.Errorf("%s: %s is empty", field, path)
	}
	return string(raw), nil
}

// hintFile is the name of the file in the data directory with the secret that hashes unknown keys for the decision log.
const hintFile = "hint.key"

// readHintKey reads the secret of hintFile, and makes one if there is none. If the secret is lost, older hints can no longer
// be compared with new ones; nothing else depends on it.
func readHintKey(dir string) ([]byte, error) {
	path := filepath.Join(dir, hintFile)
	if raw, err := os.ReadFile(path); err == nil && len(raw) >= minPepper {
		return raw, nil
	}
	key := []byte(rand.Text())
	if err := os.WriteFile(path+".new", key, 0o600); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return nil, fmt.Errorf("data_dir: %w", err)
	}
	return key, nil
}
