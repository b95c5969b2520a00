package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
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

func newBucket(p Place, name, prefix string) (*bucket, error) {
	u, err := url.Parse(cmp.Or(p.Endpoint, "https://s3.amazonaws.com"))
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
		MaxRetries: 1, // Config.Retry does it
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

func (b *bucket) Open(ctx context.Context, name string) (Stored, int64, error) {
	info, err := b.client.StatObject(ctx, b.name, b.key(name), minio.StatObjectOptions{})
	if err != nil {
		return nil, 0, b.explain("read", name, err)
	}
	return &remote{ctx: ctx, bucket: b, name: name}, info.Size, nil
}

// A remote is an object of a bucket. minio.Object would read it to its end for each call of ReadAt.
type remote struct {
	ctx    context.Context // of its requests
	bucket *bucket
	name   string
	body   io.ReadCloser
}

func (r *remote) get(options minio.GetObjectOptions) (io.ReadCloser, error) {
	b := r.bucket
	body, _, _, err := minio.Core{Client: b.client}.GetObject(r.ctx, b.name, b.key(r.name), options)
	return body, b.explain("read", r.name, err)
}

func (r *remote) Read(p []byte) (n int, err error) {
	if r.body == nil {
		if r.body, err = r.get(minio.GetObjectOptions{}); err != nil {
			return 0, err
		}
	}
	return r.body.Read(p)
}

func (r *remote) ReadAt(p []byte, at int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	var options minio.GetObjectOptions
	if err := options.SetRange(at, at+int64(len(p))-1); err != nil {
		return 0, err
	}
	body, err := r.get(options)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	n, err := io.ReadFull(body, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

func (r *remote) Close() error {
	if r.body == nil {
		return nil
	}
	return r.body.Close()
}

func (b *bucket) List(ctx context.Context, folder string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		options := minio.ListObjectsOptions{Prefix: b.key(folder) + "/", Recursive: true}
		for o := range b.client.ListObjectsIter(ctx, b.name, options) {
			name := strings.TrimPrefix(strings.TrimPrefix(o.Key, b.prefix), "/")
			if !yield(name, b.explain("list", folder, o.Err)) || o.Err != nil {
				return
			}
		}
	}
}

// explain returns an error with what to do about it.
func (b *bucket) explain(what, name string, err error) error {
	if err == nil {
		return nil
	}
	answer := minio.ToErrorResponse(err)
	advice := ""
	switch answer.Code {
	case minio.NoSuchKey:
		return ErrMissing
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
