"""A node whose workers may print no more than a mebibyte."""

from potluck_node import main, printed

if __name__ == "__main__":
    printed.OUTPUT_BYTES_MAX = 1 << 20
    main.main()
