"""What is run once: conversion of the authors' weights, training of the default, benchmarks."""
