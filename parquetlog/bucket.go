package parquetlog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// A bucket is a store on an S3 server.
type bucket struct {
	client       *minio.Client
	name, prefix string
}

func newBucket(endpoint, name, prefix string) (*bucket, error) {
	u, err := url.Parse(cmp.Or(endpoint, "https://s3.amazonaws.com"))
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" ||
		u.User != nil {
		return nil, errors.New("--s3-endpoint: want the URL of an S3 server without bucket, user and path, " +
			"like http://127.0.0.1:9000")
	}
	client, err := minio.New(u.Host, &minio.Options{
		Creds: credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{}, &credentials.FileAWSCredentials{},
			&credentials.IAM{Client: &http.Client{Timeout: 5 * time.Second}},
		}),
		Secure:     u.Scheme == "https",
		Region:     cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")),
		MaxRetries: 1, // callers retry
	})
	if err != nil {
		return nil, fmt.Errorf("--s3-endpoint: %w", err)
	}
	return &bucket{client: client, name: name, prefix: prefix}, nil
}

func (b *bucket) key(name string) string { return path.Join(b.prefix, name) }

func (b *bucket) Create(ctx context.Context, name string, file *os.File) (bool, error) {
	info, err := file.Stat()
	if err != nil {
		return false, fmt.Errorf("size of a temporary file: %w", err)
	}
	// One request: not every server can make several parts conditional. With the MD5 a server refuses damaged bytes.
	options := minio.PutObjectOptions{
		ContentType: "application/octet-stream", DisableMultipart: true, SendContentMd5: true,
	}
	options.SetMatchETagExcept("*")
	body := io.NewSectionReader(file, 0, info.Size())
	_, err = b.client.PutObject(ctx, b.name, b.key(name), body, info.Size(), options)
	if minio.ToErrorResponse(err).StatusCode == http.StatusPreconditionFailed {
		return false, nil
	}
	return err == nil, b.explain("write", name, err)
}

func (b *bucket) Open(ctx context.Context, name string) (Stored, error) {
	object, err := b.client.GetObject(ctx, b.name, b.key(name), minio.GetObjectOptions{})
	if err == nil {
		_, err = object.Stat() // the first request
	}
	return object, b.explain("read", name, err)
}

func (b *bucket) List(ctx context.Context, folder string) (names []string, err error) {
	options := minio.ListObjectsOptions{Prefix: b.key(folder) + "/", Recursive: true}
	for o := range b.client.ListObjectsIter(ctx, b.name, options) {
		if o.Err != nil {
			return nil, b.explain("list", folder, o.Err)
		}
		names = append(names, strings.TrimPrefix(strings.TrimPrefix(o.Key, b.prefix), "/"))
	}
	return names, nil
}

// Busy reports whether an error is an answer of an S3 server that may do the same later.
func Busy(err error) bool {
	answer, _ := errors.AsType[minio.ErrorResponse](err)
	return answer.StatusCode == http.StatusTooManyRequests || answer.StatusCode/100 == 5
}

// explain returns an error with what to do about it.
func (b *bucket) explain(what, name string, err error) error {
	if err == nil {
		return nil
	}
	code, advice := minio.ToErrorResponse(err).Code, ""
	if code != "" {
		err = fmt.Errorf("%s: %w", code, err)
	}
	switch code {
	case minio.NoSuchKey:
		err = fs.ErrNotExist
	case minio.NoSuchBucket:
		advice = "; the bucket does not exist: create it, or correct --archive-url"
	case "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken":
		advice = "; the credentials are refused: see AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
	case minio.AccessDenied:
		advice = "; the rights s3:GetObject, s3:PutObject and s3:ListBucket are needed, and credentials in " +
			"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in ~/.aws/credentials, or of the machine's role"
	case "AuthorizationHeaderMalformed", "PermanentRedirect":
		advice = "; set AWS_REGION to the bucket's region"
	case minio.NotImplemented:
		advice = "; the archive needs a server with conditional writes (If-None-Match: *)"
	case "":
		advice = "; see --s3-endpoint"
	}
	return fmt.Errorf(flag+": %s %s in bucket %s: %w%s", what, name, b.name, err, advice)
}
